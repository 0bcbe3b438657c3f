r"""The two files of a saved guide: how they are written, read and checked."""
