"""Pictures before anything is asked of a service: where they lie, how they are read, and what is wrong with them."""
