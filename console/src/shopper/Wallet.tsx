/** Balance and paying at the till where I am. */
import { useEffect, useRef, useState } from "preact/hooks";
import { minorUnits, money } from "../format";
import { s } from "../strings";
import type { ShopperModel } from "./model";

export function Wallet({ model, live, onClose }: { model: ShopperModel; live: boolean; onClose: () => void }) {
  const box = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    box.current?.showModal();
  }, []);
  const balances = Object.entries(model.balances.value ?? {});
  const currency = balances[0]?.[0] ?? "EUR";
  const till = model.till.value;
  const payment = model.payment.value;
  const [amount, setAmount] = useState("");
  const value = Number(amount.replace(",", "."));
  const minor = Number.isFinite(value) ? minorUnits(value, currency) : 0;
  const busy = payment?.state === "sending";
  return (
    <dialog class="wallet" ref={box} aria-label={s.shopper.wallet} onClose={onClose} onClick={(e) => e.target === box.current && box.current?.close()}>
      <header>
        <h2>{s.shopper.wallet}</h2>
        <button type="button" class="icon" aria-label={s.close} onClick={() => box.current?.close()}>
          ×
        </button>
      </header>
      <div class="clock">
        {balances.length > 0 ? balances.map(([c, n]) => <b key={c} data-figure="balance">{money(n, c)}</b>) : <b data-figure="balance">{money(0, currency)}</b>}
        <span>{s.shopper.balance}</span>
      </div>
      {balances.every(([, n]) => n === 0) && (
        <p class="quiet">
          {s.shopper.noBalance} {s.shopper.noBalanceNext}
        </p>
      )}
      {till ? (
        <form
          class="form"
          onSubmit={(event) => {
            event.preventDefault();
            void model.pay(till.id, till.name, minor, currency);
          }}
        >
          <h3 dir="auto">{s.shopper.payTitle(till.name)}</h3>
          <label>
            {s.shopper.amount}
            <span class="amount">
              <input inputMode="decimal" placeholder="0.00" value={amount} onInput={(e) => setAmount(e.currentTarget.value)} /> {currency}
            </span>
          </label>
          <button type="submit" class="primary" disabled={!live || busy || minor < 1}>
            {busy ? s.shopper.paying : payment?.state === "unknown" ? s.retry : s.shopper.payNow}
          </button>
        </form>
      ) : (
        <p class="quiet">{s.shopper.noTill}</p>
      )}
      {payment?.state === "paid" && (
        <p class="good-line" role="status">
          {s.shopper.paid(money(payment.amount, payment.currency), payment.name)}
        </p>
      )}
      {payment?.state === "refused" && (
        <p class="alert-line" role="alert">
          {payment.message}
        </p>
      )}
      {payment?.state === "unknown" && (
        <p class="alert-line" role="alert">
          {s.shopper.payUnknown}
        </p>
      )}
    </dialog>
  );
}
