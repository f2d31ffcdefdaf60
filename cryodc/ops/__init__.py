"""Pure tensor functions: rotations, wedges, filters, FSC, correlation. Nothing here touches a file."""
