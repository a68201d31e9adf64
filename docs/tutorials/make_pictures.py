"""Stand-ins for your own folder of images: 300 PNG files in three class folders, my_pictures/baseball/000.png, …"""

from pathlib import Path

from PIL import Image

from nrcg.datasets.sportballs import SportBalls

balls = SportBalls(size=40, ball_pixels=20, positions=20)
for i in range(300):
    place = Path("my_pictures", balls.check()[i % 3], f"{i:03d}.png")
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(balls.image(i)).save(place)
