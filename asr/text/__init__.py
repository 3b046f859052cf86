"""Text: raw transcripts become normalised ones, normalised ones become ids."""
