"""What a search would cost, and what another scheduler, decoding or run of the same trial would have given.

May import: tuning, results, training, runs and the rooms below.
"""
