"""The published language of mail: commands, decisions and facts."""
