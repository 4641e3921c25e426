"""What Mailroom needs of AWS: a template for each service, and the command that deploys them."""
