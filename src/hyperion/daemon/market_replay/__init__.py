"""A server that speaks the price and carbon APIs' wire formats, over series whose clock moves."""
