"""The program of the start-up case: the shortest that shows it ran."""

print("hello")
