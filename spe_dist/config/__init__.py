"""Every setting, its presets and how they are loaded; knows nothing of torch."""
