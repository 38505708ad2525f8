"""The status page: what is wrong first, then what was decided, who came, and what will end."""
