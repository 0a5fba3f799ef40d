"""Tenants of Parkside: invented names. Owns the list alone; `make_mall` decides who goes where."""

from __future__ import annotations

from typing import NamedTuple


class Tenant(NamedTuple):
    """`draw` is the popularity of a shop of usual size; 1.0 is average."""

    name: str
    category: str
    tags: tuple[str, ...]
    draw: float


def _read(table: str) -> tuple[Tenant, ...]:
    rows = [line.split("|") for line in table.strip().splitlines()]
    return tuple(Tenant(name.strip(), category.strip(), tuple(tags.split()), float(draw)) for name, category, tags, draw in rows)


ANCHORS = {
    ("L0", "north-west"): Tenant("Halden & Rowe", "department", ("department", "beauty", "fashion", "gifts"), 6.0),
    ("L1", "north-west"): Tenant("Halden & Rowe Women", "department", ("department", "women", "fashion"), 5.0),
    ("L2", "north-west"): Tenant("Halden & Rowe Home", "department", ("department", "home", "kitchen"), 4.0),
    ("L0", "south-west"): Tenant("Greenbasket Market", "supermarket", ("groceries", "food", "bakery"), 7.0),
    ("L1", "south-west"): Tenant("Fielder Sports", "sports", ("sports", "running", "outdoor", "shoes"), 4.5),
    ("L2", "south-west"): Tenant("Kidsmere", "toys", ("toys", "children", "play"), 3.5),
    ("L0", "north-east"): Tenant("Voltline", "electronics", ("electronics", "phones", "computers", "games"), 6.0),
    ("L1", "north-east"): Tenant("Norrvik", "home", ("home", "furniture", "lighting"), 4.5),
    ("L2", "north-east"): Tenant("Lumen Cinema", "leisure", ("cinema", "film", "popcorn"), 5.0),
    ("L0", "south-east"): Tenant("Marlow Street", "fashion", ("fashion", "women", "men", "children"), 5.5),
    ("L1", "south-east"): Tenant("Harbour & Pine", "fashion", ("fashion", "men", "tailoring"), 3.5),
}

STALLS = _read("""
Noodle Yard | food | noodles ramen asian lunch | 2.4
Fire & Dough | food | pizza italian lunch | 2.6
The Tandoor Room | food | indian curry vegetarian lunch | 2.0
Burger Foundry | food | burgers fries lunch | 2.8
Olive & Thyme | food | salads greek vegan lunch | 1.6
Seoul Bowl | food | korean rice lunch | 2.0
""")

KIOSKS = _read("""
Bean Counter | cafe | coffee takeaway | 2.2
Sweet Ledger | food | sweets chocolate gifts | 1.3
Case & Cable | electronics | phone cases chargers | 1.1
Petal Post | gifts | flowers gifts | 0.9
Juice Lab | cafe | juice smoothies | 1.3
Sock Drawer | fashion | socks gifts | 0.7
The Watch Bench | services | watch repair batteries | 0.6
Pretzel Point | food | pretzel bakery | 1.5
""")

SHOPS = _read("""
Ashworth Books | books | books stationery gifts | 1.6
Lantern & Loom | home | textiles lighting | 0.9
Copper Kettle | cafe | coffee tea cake | 2.4
Solstice | fashion | women dresses | 1.6
Field & Ferry | fashion | men casual | 1.2
Otterly | toys | toys children | 1.1
Brightside Opticians | health | glasses optician | 0.9
Clove Apothecary | beauty | skincare perfume | 1.3
Stride Lab | shoes | running trainers | 1.5
Juniper Lane | fashion | women linen | 1.2
Pixel Harbour | electronics | phones repair | 1.7
Golden Finch | jewellery | rings watches gifts | 1.0
Maple & Rye | food | bakery sandwiches | 2.3
Tidewater | fashion | swimwear surf | 0.8
Northbound | outdoor | hiking jackets | 1.1
Cedar & Slate | home | kitchen tableware | 1.0
Vesta Beauty | beauty | makeup nails | 1.7
Ink & Paper Co | stationery | pens cards gifts | 0.8
Parkside Pharmacy | health | pharmacy medicine | 1.8
The Denim Works | fashion | jeans unisex | 1.6
Rook & Pawn | toys | games boardgames | 0.8
Alder Shoes | shoes | leather women men | 1.3
Luma | fashion | women young | 1.9
Quill Mobile | electronics | phones contracts | 1.5
Harvest Tea House | cafe | tea cake | 1.3
Bluebell Kids | fashion | children baby | 1.2
Orchard Bank | services | bank cash | 0.9
Wildflower | gifts | candles gifts | 0.9
Saffron & Salt | food | spices deli | 0.9
Monarch Travel | services | travel holidays | 0.6
Tailor Made | fashion | suits tailoring | 0.7
Kite | fashion | sportswear women | 1.4
Hush | beauty | hair salon | 0.9
Foxglove | jewellery | silver earrings | 0.9
Terrace Coffee | cafe | coffee brunch | 2.0
Velo Parkside | sports | bicycles helmets | 0.7
Mooring | fashion | men shirts | 0.9
Little Acorns | toys | baby wood | 0.8
Nightjar Records | music | vinyl headphones | 0.9
Fable | fashion | women evening | 0.9
Stonebridge Leather | accessories | bags belts | 0.8
Oak & Iron Barbers | services | barber shave | 0.8
Frost Gelato | food | icecream gelato | 1.9
Paper Lantern Sushi | food | sushi japanese lunch | 1.6
Basecamp | outdoor | tents climbing | 0.8
Merrow Swim | fashion | swimwear women | 0.6
Thread & Button | crafts | sewing wool | 0.7
Calico Cats | pets | pets toys | 0.8
Arcade Nine | leisure | arcade games | 1.2
Lindqvist Watches | jewellery | watches repair | 0.8
Hearth Candles | home | candles scents | 0.7
Meridian Luggage | accessories | luggage travel | 0.7
Sable & Co | fashion | men women coats | 1.1
Poppy Nails | beauty | nails salon | 0.9
The Bread Post | food | bakery bread | 1.9
Nimbus Toys | toys | models drones | 0.9
Blue Door Dental | health | dentist | 0.5
Brook & Daughter | fashion | women knitwear | 1.0
Circuit House | electronics | computers parts | 1.1
Verity Vision | health | lenses glasses | 0.7
Salt Lane Fish Bar | food | fish chips lunch | 1.5
Tansy | beauty | natural skincare | 1.0
Kestrel | outdoor | boots jackets | 0.9
Hopscotch | shoes | children shoes | 0.9
Larkspur | fashion | women workwear | 1.2
Union Street | fashion | streetwear sneakers | 1.7
Press & Grind | cafe | espresso | 1.8
Amber Room | jewellery | gold amber | 0.7
Homestead | home | bedding towels | 1.1
Gather | home | plants pots | 0.9
Parcel Point | services | parcels keys | 1.0
Tempo | sports | gym yoga | 0.9
Marigold Sweets | food | sweets gifts | 1.0
Fern & Fable | books | children books | 0.9
Whistledown | fashion | women vintage | 0.8
Bramble Baby | fashion | baby maternity | 0.8
Signal | electronics | audio cameras | 1.2
Crown Cobblers | services | shoes keys repair | 0.5
Lotus Thai | food | thai lunch dinner | 1.5
Taproom 26 | food | bar burgers dinner | 1.4
Mezze Terrace | food | lebanese dinner | 1.3
Casa Lupo | food | pasta italian dinner | 1.6
Ember Grill | food | steak dinner | 1.4
Dumpling Lane | food | dumplings lunch | 1.7
Pancake Parlour | food | pancakes brunch | 1.3
Sugar Loaf | cafe | cake coffee | 1.2
Opal | beauty | perfume gifts | 1.2
Drift | fashion | young unisex | 1.5
Holm | home | furniture nordic | 0.9
Ridgeline | sports | ski bikes | 0.8
Chapter Nine | books | books comics | 1.0
Violet Hour | fashion | lingerie | 1.1
Bold & Brass | accessories | hats scarves | 0.6
Petit Pont | food | creperie french | 1.2
Loop Refill | home | refill ecological | 0.6
Anchor Phones | electronics | phones accessories | 1.0
Sage Clinic | health | physiotherapy | 0.4
Tinker Lab | toys | science kits | 0.9
Maison Clair | fashion | women shoes | 1.0
Hatch | fashion | men basics | 1.1
""")
