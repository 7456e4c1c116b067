// Colour maps of matplotlib (BSD licence) at 33 evenly spaced points; between them colours are interpolated.
const POINTS = {
  gray:
    "0000000808081010101818182020202828283030303838384040404848485050505858586060606868687070707878788080" +
    "80888888909090989898a0a0a0a8a8a8b0b0b0b8b8b8c0c0c0c8c8c8d0d0d0d8d8d8e0e0e0e8e8e8f0f0f0f8f8f8ffffff",
  cividis:
    "00224e00285b002e6a0533711a386f273e6e32436d3b496c434e6c4b546c535a6d5a5f6e61656f686a716f70737676767d7c" +
    "788482798c8878938e789b9476a39a74aba072b4a76fbcae6cc4b468cdbb63d5c25edec958e7d150f0d846f9e03afee838",
  viridis:
    "440154470d6048186a482374472d7b4537814240863e49893b528b375b8d33638d2f6b8e2c728e297a8e26828e23898e2191" +
    "8c1f988b1fa08822a78528ae8032b67a3fbc734ec36b5ec96270cf5784d44b98d83eaddc30c2df23d8e219ece51bfde725",
  magma:
    "0000040303120a0822130d341d114729115a36106b440f7651127c5d177f6a1c81762181832681902a819c2e7faa337db737" +
    "79c43c75d0416fdc4869e75263ef5d5ef56b5cf9795dfc8961fd9869fea772feb67cfec488fed395fde2a3fcf0b2fcfdbf",
  twilight:
    "e2d9e2d7d7ddc4ced4acc2cc95b5c781a6c37297c16887be6276ba5f64b55e51ad5d3da1592a8f511b7745135c3811452f14" +
    "363a113a4a13425f174a741e4f872750983550a64550b25652bb6958c27c63c89073cca389d1b6a3d8c7bedfd4d6e2d9e2",
};

export const NAMES = Object.keys(POINTS);

const tables = {};

/** 256 colours of a map as packed RGBA (little-endian 0xAABBGGRR). */
export function table(name) {
  if (!tables[name]) {
    const points = POINTS[name].match(/../g).map((byte) => parseInt(byte, 16));
    tables[name] = Uint32Array.from({ length: 256 }, (_, index) => {
      const at = (index / 255) * 32;
      const below = Math.min(Math.floor(at), 31);
      const [red, green, blue] = [0, 1, 2].map((channel) => {
        const [low, high] = [points[3 * below + channel], points[3 * below + 3 + channel]];
        return Math.round(low + (high - low) * (at - below));
      });
      return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
    });
  }
  return tables[name];
}

/** A CSS gradient of a map, for its colour bar. */
export function gradient(name) {
  const colours = POINTS[name].match(/.{6}/g).map((hex) => `#${hex}`);
  return `linear-gradient(to right, ${colours.join(",")})`;
}
