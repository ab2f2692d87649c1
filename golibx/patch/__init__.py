"""Making the standard library aware of goroutines."""
