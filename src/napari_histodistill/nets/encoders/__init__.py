"""Encoders: networks that turn an image into feature maps at several depths, coarser and coarser; one file each.

`base.Encoder` says what an encoder is. They are found by name in `nets.registry.ENCODERS`, where other packages add
their own (``docs/extending.md``), and imported only when one is used.
"""
