//! What `saga up` says when it is ready: addresses, and a purchase to paste.

use super::Shop;

/// The text for a person at a terminal.
pub(super) fn text(shop: &Shop, first_is_admin: bool) -> String {
    let (public, internal, admin) = (shop.public_addr, shop.internal_addr, shop.admin_addr);
    let data = shop.data.display();
    let first = match (shop.empty, first_is_admin) {
        (true, true) => {
            "\nNobody has an account yet: the first one that registers becomes the administrator\n(account.first_account_is_admin = false switches that off; `saga admin create` makes others).\n"
        }
        (true, false) => "\nNobody has an account yet: `saga admin create --email …` makes an administrator.\n",
        (false, _) => "",
    };
    format!(
        r#"The shop is open.

  in a browser    http://{public} (the shop), http://{admin} (the console)
  for customers   http://{public}/api/v1
  for services    {internal} (gRPC)
  for operators   http://{admin}/admin (the saga command finds it: saga --data {data} sagas list)
  databases       {data}
{first}
A purchase to paste into another terminal (needs curl and jq):

  SHOP=http://{public}/api/v1
  TOKEN=$(curl -s $SHOP/account/auth/register --json '{{"email": "mary@example.com", "password": "a long password",
    "first_name": "Mary", "last_name": "Godwin", "address": "12 Lake Road", "phone_number": "1234567"}}' | jq -r .access_token)
  CATEGORY=$(curl -s $SHOP/categories -H "Authorization: Bearer $TOKEN" --json '{{"name": "Kitchen", "description": "For tea"}}' | jq .id)
  CUP=$(curl -s $SHOP/products -H "Authorization: Bearer $TOKEN" --json '{{"category_id": '$CATEGORY', "name": "Cup",
    "brand_name": "Plain", "description": "Holds tea", "price": 1390, "inventory": 1000}}' | jq .id)
  PURCHASE=$(curl -s $SHOP/purchases -H "Authorization: Bearer $TOKEN" --json '{{"order_items": [{{"product_id": '$CUP', "quantity": 4}}],
    "payment": {{"currency_code": "VND"}}}}' | jq .id)
  curl -N $SHOP/purchases/$PURCHASE/events -H "Authorization: Bearer $TOKEN"

Ctrl-C stops the shop; what is on its way goes on at the next start.
"#
    )
}
