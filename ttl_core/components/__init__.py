"""Components: their base class, and the list that holds them with names, order and toggling."""
