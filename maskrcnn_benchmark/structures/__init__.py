"""What flows between the rooms: boxes with their fields, and batches of pictures."""
