"""The files service: uploads straight to S3, verified, catalogued, never lost."""
