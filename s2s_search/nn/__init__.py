"""The two models in PyTorch: cells, encoders, bridges, attention, decoders, and decoding.

`fast` holds quicker loops over time, which compute the same numbers.
May import: hparams, corpus and the ground floor.
"""
