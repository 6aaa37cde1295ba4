"""The worker: a supervisor that holds the claim and the connection, and an executor that trains."""
