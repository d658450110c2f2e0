"""What a search would cost, and what another scheduler, decoding or repetition would give.

May import: tuning, results, training, runs and the rooms below.
"""
