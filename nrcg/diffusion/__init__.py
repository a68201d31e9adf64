"""The reverse process of a diffusers U-Net under any scheduler: x̂_0, steps, random draws. No classifiers here."""
