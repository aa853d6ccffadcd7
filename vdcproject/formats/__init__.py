"""How the admin writes times; Django looks for one package per language here."""
