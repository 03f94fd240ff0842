"""The backend for a store: runs that a process of this machine drives, and the journals of any store."""
