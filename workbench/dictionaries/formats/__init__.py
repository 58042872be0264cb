"""Reading and writing other tools' dictionary files."""
