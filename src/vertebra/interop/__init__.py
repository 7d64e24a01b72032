"""What a name means, wherever it comes from: packages that carry weights, and formats of other projects.

This floor knows backbones and encoders; it does not know training or the command line.
"""
