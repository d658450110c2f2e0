"""The loops over time a second time, faster: written-out gradients, and C where the installation compiled it.

A loop object is made for one batch. `forward()` runs all steps and keeps what the gradients need; `backward()` runs
after it, once, and reads what `forward` kept. Tensors go to C by address, and `native` checks each one first.
Only `nn` imports this room, and `training.optimizers`, which uses `matmul.sum_rows`.
"""
