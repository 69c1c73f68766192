// Draws faces: reads JSON [{style, mouth, skin, …, seed}] on stdin, writes raw RGB (n, 64, 64, 3) uint8 to the path given.
// npm install @dicebear/core@9 @dicebear/collection@9.4.3 @resvg/resvg-js   (set NODE_PATH or run beside node_modules)
// Art: Open Peeps (Pablo Stanley, CC0), Pixel Art (DiceBear, CC0), Personas (Draftbit, CC BY 4.0).
import { createRequire } from 'node:module';
import fs from 'node:fs';

const require = createRequire(process.cwd() + '/');
const load = async (name) => import(require.resolve(name));
const { createAvatar } = await load('@dicebear/core');
const { openPeeps, pixelArt, personas } = await load('@dicebear/collection');
const { Resvg } = await load('@resvg/resvg-js');

const SIDE = 64;
const SKIN = { pale: 'ffdbb4', tan: 'e0a878', brown: 'ae6a3a', dark: '694d3d' };
const HAIR = { black: '2c1b18', brown: '724133', blond: 'd9b35a', red: 'c93305', gray: 'b8b8b8' };
const CLOTHES = { red: 'd8343a', blue: '3b6fd6', green: '3fae5a', yellow: 'f2c230', purple: '8a55c8', black: '26282e', white: 'f2f2f2' };
const BACKGROUND = { white: 'ffffff', sky: '9ed8f5', pink: 'f7b6c8', cream: 'fbe3bd', gray: '9a9a9a', mint: 'a8e6b8', lavender: 'c4b0ea', navy: '2a3a68' };

const numbered = (stem, n) => Array.from({ length: n }, (_, i) => stem + String(i + 1).padStart(2, '0'));
const some = (values) => ({ values: values ?? [], probability: values ? 100 : 0 });

// Which of an artist's variants stand for a label; DiceBear chooses among them by the face's seed.
const STYLES = {
  'ink drawing': {
    art: openPeeps,
    hair: { short: ['short1', 'short2', 'short3', 'short4', 'short5', 'pomp', 'flatTop'], long: ['long', 'longBangs', 'medium1', 'medium2', 'mediumStraight'], curly: ['afro', 'longCurly', 'longAfro', 'bantuKnots'], bald: ['noHair1', 'noHair2', 'noHair3'] },
    glasses: { glasses: ['glasses', 'glasses2', 'glasses3', 'glasses4'], sunglasses: ['sunglasses', 'sunglasses2'] },
    beard: { beard: ['full', 'full2', 'full3', 'full4'], moustache: ['moustache1', 'moustache2', 'moustache3', 'moustache5'] },
    mouth: { smiling: ['smile', 'smileBig', 'cute'], sad: ['concerned', 'solemn', 'tired'], neutral: ['calm', 'blank', 'serious'], surprised: ['awe', 'fear'] },
    options: (f) => ({ head: f.hair.values, headContrastColor: [f.hairColour], accessories: f.glasses.values, accessoriesProbability: f.glasses.probability, facialHair: f.beard.values, facialHairProbability: f.beard.probability, face: f.mouth.values, skinColor: [f.skin], clothingColor: [f.clothes], maskProbability: 0 }),
  },
  'pixel art': {
    art: pixelArt,
    hair: { short: numbered('short', 16), long: numbered('long', 14) },
    glasses: { glasses: numbered('light', 7), sunglasses: numbered('dark', 7) },
    beard: { beard: ['variant01', 'variant02'], moustache: ['variant03', 'variant04'] },
    mouth: { smiling: numbered('happy', 8), sad: numbered('sad', 8) },
    options: (f) => ({ hair: f.hair.values, hairProbability: f.hair.probability, hairColor: [f.hairColour], glasses: f.glasses.values, glassesProbability: f.glasses.probability, beard: f.beard.values, beardProbability: f.beard.probability, mouth: f.mouth.values, skinColor: [f.skin], clothingColor: [f.clothes], accessoriesProbability: 0, hatProbability: 0, clothing: numbered('variant', 12) }),
  },
  'flat vector': {
    art: personas,
    hair: { short: ['shortCombover', 'buzzcut', 'fade', 'mohawk'], long: ['long', 'bobCut', 'extraLong', 'bobBangs', 'pigtails'], curly: ['curly', 'curlyHighTop', 'curlyBun'], bald: ['bald'] },
    glasses: { none: ['open', 'happy'], glasses: ['glasses'], sunglasses: ['sunglasses'] },
    beard: { beard: ['beardMustache', 'goatee'], moustache: ['walrus', 'pyramid'] },
    mouth: { smiling: ['smile', 'bigSmile'], sad: ['frown'], neutral: ['lips', 'smirk'], surprised: ['surprise'] },
    options: (f) => ({ hair: f.hair.values, hairColor: [f.hairColour], eyes: f.glasses.values, facialHair: f.beard.values, facialHairProbability: f.beard.probability, mouth: f.mouth.values, skinColor: [f.skin], clothingColor: [f.clothes], body: ['squared', 'rounded', 'small'] }),
  },
};

const faces = JSON.parse(fs.readFileSync(0));
const out = Buffer.alloc(faces.length * SIDE * SIDE * 3);
faces.forEach((face, i) => {
  const style = STYLES[face.style];
  const options = style.options({
    hair: some(style.hair[face.hair]), glasses: some(style.glasses[face.glasses]), beard: some(style.beard[face.beard]), mouth: some(style.mouth[face.mouth]),
    hairColour: HAIR[face.hair_colour], skin: SKIN[face.skin], clothes: CLOTHES[face.clothes],
  });
  const svg = createAvatar(style.art, { seed: String(face.seed), size: SIDE, backgroundColor: [BACKGROUND[face.background]], ...options }).toString();
  const rgba = new Resvg(svg, { fitTo: { mode: 'width', value: SIDE } }).render().pixels;
  for (let j = 0; j < SIDE * SIDE; j++) rgba.copy(out, (i * SIDE * SIDE + j) * 3, j * 4, j * 4 + 3);
});
fs.writeFileSync(process.argv[2], out);
