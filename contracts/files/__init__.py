"""The published language of files: commands, decisions and facts."""
