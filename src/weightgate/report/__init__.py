"""What was found, as values, and their terminal, JSON and HTML forms. This room knows no verb."""
