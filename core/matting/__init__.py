"""Turn a mask into alpha: trimap, filters, closed-form solver, foreground colors, quality."""
