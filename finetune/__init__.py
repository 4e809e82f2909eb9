"""From served features and their labels to a release: training, its data, its figures.
It meets the streams through data, and shares with them only the pure parts: tasks, state, features.
"""
