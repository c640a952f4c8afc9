"""Names, messages and schemas that every part shares; depends on nothing else here."""
