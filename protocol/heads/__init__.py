"""What a head is made of: names, shapes, first values, and its digest."""
