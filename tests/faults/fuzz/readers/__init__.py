"""Every kind of file that the program reads, with sound examples and the function that reads it."""
