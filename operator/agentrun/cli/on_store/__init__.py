"""The backend for a store: for runs that a process of this machine drives, and for reading any store's journals."""
