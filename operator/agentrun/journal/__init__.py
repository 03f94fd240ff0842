"""The append-only journal in object storage: checkpoint, audit trail and lock in one."""
