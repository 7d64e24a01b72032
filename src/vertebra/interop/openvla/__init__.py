"""Folders of OpenVLA, OpenVLA-OFT and prismatic: read into the one model type, and written back key for key."""
