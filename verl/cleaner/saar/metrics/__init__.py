"""What `cleaner.saar.similarity` is made of: reading arguments, and one module for each way of comparing them."""
