"""Explorers: `explore_*` joins controls, a measurement and its view into one display."""
