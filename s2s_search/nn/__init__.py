"""The models, bottom up: cells, encoders, bridges, attention, decoders, models, generate."""
