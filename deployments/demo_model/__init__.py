"""The demo model: the grammar its corpus is made from, its training and its evaluation."""
