"""Training that is exact and resumes bit for bit: the Hugging Face `Trainer`, subclassed and configured.

This floor knows models, data, tuning and folders; it does not know the command line.
"""
