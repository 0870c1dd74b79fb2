"""Neutral sentences, bundled: everyday statements that are about nothing in particular.

A feature's activating sentences are compared with some of these, chosen for their lengths
(length_matching.py): 4 to 38 words, half of them 9 to 20, as LLMs write. Hardly any two share a
theme. They avoid what corpora of concepts are made of (days, colours, languages, code, numbers,
strong feelings, animals, food, places by name, sport, science, law), so that a feature of such a
concept has no reason to fire.
"""

from __future__ import annotations

NEUTRAL_SENTENCES: tuple[str, ...] = (
    "Nobody answered the telephone.",
    "The door was left open.",
    "She put the box down.",
    "It belongs to someone else.",
    "The lid does not fit.",
    "They were already waiting outside.",
    "He folded the sheet with care.",
    "Her umbrella stood beside the stairs.",
    "The old lamp still works well.",
    "We can sort that out later.",
    "Most of the chairs were taken.",
    "The path leads up the hill.",
    "Somebody has moved the long ladder again.",
    "He usually takes the same way home.",
    "The curtains are a bit too short.",
    "Both of them had heard the story.",
    "A parcel is waiting at the front desk.",
    "Nothing in the letter came as a surprise.",
    "You can hang your coat behind the door.",
    "The rest can be done at another time.",
    "The key was lying under a pile of papers.",
    "It took her a while to find the address.",
    "The lift stops between the floors now and then.",
    "His handwriting is hard for most people to read.",
    "The people at the next table were talking quietly.",
    "A button came off while he was getting dressed.",
    "The notice beside the entrance has not been updated yet.",
    "She wrote her name at the top of the form.",
    "There is usually somebody at the counter who can help.",
    "The wheel makes a noise whenever the cart turns left.",
    "The shelf in the corner is full of empty jars.",
    "What happened after that is described in the next part.",
    "There was a short pause before anyone gave an answer.",
    "A draught comes in wherever the window frame has shrunk.",
    "He gave the towel a shake and hung it up again.",
    "The meeting lasted a good deal longer than we had expected.",
    "The plan was changed slightly before it was finally carried out.",
    "Her cousin has borrowed the drill and not brought it back.",
    "I think it would be better to ask the caretaker first.",
    "A pen without a cap was rolling around inside the bag.",
    "The envelope had been opened and then closed again with some tape.",
    "The gate has to be lifted a little before it will shut.",
    "The photograph on the wall shows the building before it was repaired.",
    "The suitcase was heavier than it looked, so they carried it together.",
    "Water has been dripping from the tap since the pipe was replaced.",
    "The other bench is a little longer and much easier to carry.",
    "They stood in the queue and looked at the ceiling for a while.",
    "Whoever used the bucket last did not put it back in its place.",
    "Anyone who wants a seat near the front should try to come early.",
    "He said that he would be back soon and left his bag behind.",
    "They had known each other ever since they lived in the same building.",
    "The bus was so full that the driver did not stop for us.",
    "His glasses had slipped down behind the sofa, where nobody thought of looking.",
    "We talked about it for some time and then went on with our work.",
    "The carpet in the hall had to be cut so that it would fit.",
    "She keeps the spare batteries in a tin at the bottom of the cupboard.",
    "We found the instructions in the drawer after we had put the thing together.",
    "A small group of visitors stood near the entrance and waited to be let in.",
    "The printer has run out of paper, and nobody knows where the rest is kept.",
    "The tent is easy to put up if somebody holds the poles in the meantime.",
    "The mirror has been leaning against the wall ever since they moved into the flat.",
    "Her uncle never throws a screw away, because it might be needed again at some point.",
    "The string was just long enough to go around the pile and be tied on top.",
    "From the bridge it is possible to see how far the water has risen this time.",
    "The road is being repaired, so everybody has to go around by the back of the station.",
    "The person who sat beside me on the train was reading a thick book without a cover.",
    "The neighbours have asked us to look after their post while they are away visiting their"
    " relatives.",
    "There is a narrow gap between the wardrobe and the wall, and things keep disappearing "
    "into it.",
    "The committee thanked everyone for coming and said that the minutes would be sent around"
    " before long.",
    "He wiped the dust off the radio, turned the knob, and listened for a while to the noise.",
    "Since the alarm did not go off, both of us had to leave the house in a hurry.",
    "She ironed the sleeves first, then the collar, and hung the shirt over the back of a chair.",
    "If you hold the map the other way around, you will see that we have just come from there.",
    "She looked through the whole folder, page by page, but the receipt that she needed was "
    "not in it.",
    "The candle had burned down so far that it was no longer possible to get it out of the holder.",
    "The man behind the glass pushed the form back and pointed at a box that had not been "
    "filled in.",
    "The blanket is too big for the washing machine, so it has to be taken to the shop near "
    "the corner.",
    "They spent most of the afternoon trying to get the table through the door without taking"
    " off any of its legs.",
    "My gloves were not in the pocket of the jacket, nor in the bag, so I must have left them"
    " somewhere.",
    "The rope had been tied so tightly around the crate that they had to cut it to get at the lid.",
    "The fence between the gardens leans over a little further each time there is a storm, "
    "but it has never fallen down.",
    "They moved the piano to the other wall, which left a mark on the floor that nobody has "
    "been able to remove.",
    "He likes to sit on the steps in front of the house and watch what the people across the "
    "road are doing.",
    "Most visitors do not notice the small door under the stairs, which leads to a room where"
    " the old files are stored.",
    "The speech was rather short, and since the microphone did not work, those who stood at "
    "the back heard hardly any of it.",
    "Whenever a heavy truck goes past the house, the cups in the cabinet move a little closer"
    " to the edge of their shelf.",
    "The ladder was too short to reach the gutter, so they put it on the wall of the terrace "
    "and held it there.",
    "The paint on the window sill has begun to peel, and before it is done again the old "
    "layer will have to come off.",
    "She had meant to return the book to the library on her way to work, but it was still on "
    "the table at home.",
    "As nobody could tell which of the bags was whose, they were all emptied onto the floor "
    "of the hall and sorted from there.",
    "The broom is kept behind the cellar door, together with a shovel, a roll of wire and the"
    " things that nobody has found a use for.",
    "As the hotel had no room left, they were given the address of a woman who sometimes lets"
    " people stay in the flat above her shop.",
    "The fog was so thick that the ferry stayed at the pier, and the passengers sat down on "
    "their luggage and waited for it to lift.",
    "He has been meaning to mend the handle of that drawer for a long time, but whenever he "
    "finds the glue, somebody needs him somewhere else.",
    "The key fits the lock, but it has to be pulled out again by about the width of a "
    "fingernail before it can be turned around.",
    "After the guests had gone, they opened the windows, carried the chairs back upstairs, "
    "and left everything else as it was until the following morning came around.",
    "There was nothing on the notice board except a list of names, a drawing of a bicycle, "
    "and a card from someone looking for a room nearby.",
    "The poster had been put up in such a hurry that it hung at an angle, and by the evening "
    "the wind had torn off a corner.",
    "The cupboard had been built for another flat, so that its doors could be opened only "
    "halfway, and whatever stood at the back was difficult to reach or see.",
    "Because the heating in the office had been turned off by mistake, people kept their "
    "coats on while they worked, and some of them went home early that afternoon.",
    "The rehearsal had to be interrupted again and again, since the curtain got stuck "
    "halfway, and each time somebody had to climb up and pull it free by hand.",
    "The woman who used to deliver the newspapers on our street has moved away, and the boy "
    "who does it now leaves them all in a heap by the gate.",
    "They have agreed to share the storage room under the roof, with his things along the "
    "wall by the chimney and hers on the side where the small window is.",
    "What they remember of the journey is mostly how long they stood in the corridor of the "
    "train, holding on to the rail, while the others slept on their bags.",
    "At the end of the talk a woman in the last row stood up and asked whether the pictures "
    "could be shown again, as she had come in too late.",
    "When the old sofa was finally carried out, they found behind it a comb, a few pencils, a"
    " postcard that had never been sent, and the missing piece of the puzzle.",
    "It turned out that the parcel had been handed to somebody on the floor above, who had "
    "put it under the stairs, where it was found by the man reading the meter.",
    "We were told to wait in the room at the end of the corridor, where there were some "
    "magazines, a plant that needed water, and a clock that had stopped long ago.",
    "The box with the tools had been standing in the rain for so long that its bottom gave "
    "way as soon as he lifted it, and everything fell onto the steps below.",
    "The shoes that she had taken to be repaired were ready sooner than she had been told, "
    "but by then she had got used to the other pair and forgot to fetch them.",
    "Although the sign at the corner says that the passage is closed, almost everybody who "
    "lives around here goes on using it, because the way around is a good deal longer and "
    "steeper.",
    "Before the new tenants moved in, the landlady had the floor polished, the handles "
    "replaced, and the bells repaired, and she left a note on the shelf that explained how to"
    " use the stove.",
    "While the kitchen was being rebuilt, they washed the dishes in the bathtub, kept the "
    "pans in the hall, and had to step over boards and bags of cement whenever they wanted to"
    " go out.",
    "She had promised to call as soon as she arrived, but the telephone in the hall was out "
    "of order, the nearest shop was already closed, and so it was late before anybody heard "
    "from her.",
    "The brothers have hardly spoken about the house since then, but each of them drives past"
    " it from time to time, and each of them has noticed that the shutters have been repaired"
    " and the hedge cut.",
    "In the waiting room there was a man with a rolled carpet under his arm, who asked "
    "everyone that came in whether this was the right floor, and then sat down again without "
    "listening to the answer.",
    "Somebody must have used the hut during the storm, for the wood beside the stove was "
    "gone, there were cups on the table, and a wet jacket had been left hanging from a nail "
    "behind the door.",
    "It is said that the bench was put there by a man who used to walk up to the viewpoint "
    "with his wife, and who wanted others to have somewhere to rest before they went back "
    "down.",
    "The guide walked ahead with a lantern, stopping here and there to point at a crack in "
    "the rock or a rusty ring in the wall, and those at the back of the group saw none of it.",
)
