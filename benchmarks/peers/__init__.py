"""trtdet beside what its users would run otherwise, on the same weights, images, and cores."""
