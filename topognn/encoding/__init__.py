"""From a layout and masks to graphs."""
