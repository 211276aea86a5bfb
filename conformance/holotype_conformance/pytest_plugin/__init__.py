"""The suite as pytest sees it: the plugin, its items, and the decorator for a test file of one's own."""
