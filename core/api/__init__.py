"""What every noun's API shares: reading bodies, refusing what is unknown, one look of objects and lists."""
