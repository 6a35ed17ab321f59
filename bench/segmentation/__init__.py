"""Compare segmentation with rembg."""
