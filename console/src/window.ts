/** What a person at the developer's console, and the browser tests, may look at: `window.esplanade`. Holds no token. */
import type { ArScene } from "./ar/ArScene";
import type { MapScene } from "./map/scene";
import type { ShopperModel } from "./shopper/model";

type Inspectable = { scene?: MapScene; shopper?: ShopperModel; ar?: ArScene };

declare global {
  interface Window {
    esplanade?: Inspectable;
  }
}

export function inspect(part: Inspectable): void {
  window.esplanade = { ...window.esplanade, ...part };
}
